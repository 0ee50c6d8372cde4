"""Commands. The only package that knows Ray, ranks, URIs and the command line."""
