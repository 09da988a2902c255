"""What a net may be called where it is served: in addresses, in folders, in configurations."""

from __future__ import annotations

import re

MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
