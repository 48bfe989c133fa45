"""What is known of cartridges and of what lies on them. Never the only place where it is written down."""
