"""Bad input and abuse: tables of single cases, and requests at random."""
