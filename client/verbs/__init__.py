"""One module for each verb of the command; each exports `command` and is imported when it is used."""
