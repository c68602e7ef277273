"""What makes a Pi with apmpi an appliance: settings from a partition that any PC can read, devices chosen by
what is plugged in, updates that can be taken back. Runs on the device, as root, each module as a command.

Every function that looks at the system takes its root folder, so that a tree of files can stand in for it.
"""
