"""Emulated devices served over iSCSI, for initiators that are not ours: Linux, libiscsi, QEMU.

    target ── accepts ──▶ connection ── login ──▶ full feature: tasks ──▶ Lun.execute
                          (one thread each)

RFC 7143 at error recovery level 0: one connection a session, no digests, no CHAP.
"""
