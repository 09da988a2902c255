"""What a bundle for a card holds, and the runner that measures it there.

`making.py` makes a bundle, `feeding.py` makes records of what a run has measured: they know vggc.
All other modules travel in the bundle: they know torch, numpy and NVIDIA's driver alone.
"""
