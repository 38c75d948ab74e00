"""CUDA kernels: compiled at run time, launched, with their launch sizes."""
