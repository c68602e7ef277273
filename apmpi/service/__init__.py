"""The daemon: the loop, its reports and its socket."""
