"""Layers: one idea a file, the equations in its docstring, the function and the nn.Module beside each other."""
