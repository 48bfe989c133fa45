"""Emulated devices served over iSCSI, for initiators that are not ours: Linux, libiscsi, QEMU.

    target ── accepts ──▶ login ──▶ connection ── task set ──▶ work ──▶ Lun.execute
                          (a thread that reads, and one that works, for each session)

RFC 7143 at error recovery level 0: one connection a session, no digests, no CHAP.
"""
