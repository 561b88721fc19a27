"""The backup extension: carries out Backup, Restore and DeleteBackup documents next to the data of one cluster."""
