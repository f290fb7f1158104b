"""The CUDA engine: ensembles of paths and image-scale sampling on an NVIDIA GPU, by numba.cuda.

Everything imports without a GPU, and without numba-cuda: ``backend`` says what is missing. Kernels are thin, index
arithmetic around the ``@njit`` functions that the CPU engines run too, so that there is one source of every formula.
"""
