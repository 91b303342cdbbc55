"""Any checkpoint, whoever trained it: would pass@k training hurt it, and did it?"""
