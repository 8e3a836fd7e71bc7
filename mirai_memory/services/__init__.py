"""Rules and SQL, one file for each noun; no service opens or ends a transaction."""
