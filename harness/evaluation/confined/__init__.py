"""What runs beside generated programs, away from this process: see docs/sandbox.md.

``enter`` makes the user namespace, ``runner`` serves requests inside the sandbox, ``zygote`` makes a confined process
for each program, ``program`` is what runs in it, ``judge`` evaluates the asserts in another, ``plain`` is the data that
these two exchange, and ``confine`` what each gives up. Only the standard library is imported, as there is nothing else.
"""
