"""What the line of periscope.pth runs at the start of every interpreter of a virtual environment:
nothing without PERISCOPE_TARGET, and nothing that could break the program with it."""

try:
    import _periscope_shim

    _periscope_shim.install()
except BaseException:  # the daemon comes first: without the shim it still runs
    pass
