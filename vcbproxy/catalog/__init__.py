"""What is known of cartridges and of what lies on them. Never the only place where it is written down.

records   medium        what everybody sees: frozen dataclasses
points    media  sets   questions and changes, each a transaction
tables                  rows; nothing of them leaves this package
migrations/             how a schema becomes the next one

length  allocation  expiry  recycling     the rules: pure functions
"""
