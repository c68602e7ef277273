"""`apmpi web`: a page of the service for browsers, live from the local socket."""
