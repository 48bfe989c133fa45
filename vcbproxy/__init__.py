"""vcbproxy: LAN-free backup of VMware virtual machines, straight off the SAN."""
