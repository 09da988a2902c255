"""The files in the folder of an artifact that running it takes."""

MANIFEST = "manifest.json"
"""What the artifact says of itself."""

LIBRARY = "lib.so"
"""The kernels, and on a CPU what calls them."""

WEIGHTS = "weights.safetensors"
"""The weights, packed as kernels read them."""
