"""An AI service on Antiphon: one process, the models inside it.

Read `app.py` first: it puts the other files together, each of which holds one idea.
"""
