"""Programs that use gradwatch the way a user would."""
