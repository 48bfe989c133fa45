"""The manager: vCenter Server or an ESXi host, spoken to over SOAP with pyVmomi.

Control plane only: kilobytes over the LAN. What goes in is an address, credentials and which VM is meant; what comes
out are frozen values (VMs, disks, datastores, the disks as one snapshot froze them) and our typed errors. pyVmomi's
objects and exceptions stay inside this package.

    tls        a verified or pinned connection, never an unverified one
    wire       pyVmomi's stub with our rules: every fault and socket error becomes ours in this one place
    faults     which of them mean what: try again, log in again, wait, give up
    session    logged in; reads are repeated after a dropped connection, actions never blindly
    properties the property collector, by pages
    answers    ... of long lists, read off the wire by ourselves
    task       waiting for a task without polling
    datastore disk vm        the values
    convert    pyVmomi's objects to these values
    pattern selector choice  which VMs are meant: pure, text and summaries in, summaries out
    places     the folders that VMs lie in
    rest tags  vCenter's other API, asked only for tags
    inventory  listing, choosing and finding
    snapshot   held(): a snapshot that is gone again on every exit
    vmconfig   a VM's configuration as plain data
"""
