"""
What stands between fapilog and each of the field failures that its cases name, and the tests that would notice if it were gone.

``python -m tests.protections [ID...]`` (`make cases`) shows it: it takes each protection out of a copy of the package and runs
the tests that are named for it, one of which has to fail; and beforehand all of them with nothing taken out, which have to pass.
"""
