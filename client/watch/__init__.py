"""Following a ledger for somebody: what touches him, where he stands, who is told. The core is `watching`."""
