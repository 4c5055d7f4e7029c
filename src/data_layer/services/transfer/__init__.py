"""Work that comes from elsewhere, or goes there: files of the application, and whole projects."""
