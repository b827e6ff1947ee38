"""The full-screen dashboard. It knows a router by its HTTP address alone.

What is decided and what is written on the screen is plain code, in the modules of this folder;
`widgets/` and `screens/` show it, and `source.py` asks the router.
"""
