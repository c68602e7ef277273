"""The chain in frameworks for voice agents. The modules named after one need its package."""
