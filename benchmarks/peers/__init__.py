"""What searchlib is measured beside: programs as one writes them in an afternoon, each a process of
its own that imports nothing it does not need.
"""
