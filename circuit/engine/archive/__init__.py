"""The archive: finished cases are written to files, week by week, and their partitions are dropped.

`policy` says which, `folder` writes and reads the files, `round` takes weeks out of the database, `keeper` does it in
the background of a worker, and makes the partitions of the weeks to come.
"""
