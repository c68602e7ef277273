"""Devices and files: everything through which sound enters and leaves."""
