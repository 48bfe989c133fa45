"""The kernel's tape driver, ``/dev/nstN``, where the generic one (``/dev/sgN``) cannot be had.

It says less: of what failed only an errno, of the end of the tape only that it is near. What it does by itself, and
what one must do so that it does not, stands in ``drive.py``; constants and structures in ``mtio.py``.
"""
