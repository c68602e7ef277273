"""Programs of the image: settings from a partition that any PC can read, choice of devices, updates with a
way back.

Each module runs on the device, as root, as a command of its own. Every function that reads the system takes
the root folder as an argument, so that tests can give it a tree of files.
"""
