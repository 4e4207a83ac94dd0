"""The server behind webui.py: a page, OpenAI's speech API and Gradio's, in one process.

`voices.py` finds and loads voices, `studio.py` shares one thread among all requests, `takes.py` speaks, `encoding.py`
encodes audio while it is generated, `api.py` answers HTTP, `gate.py` checks who asks, `gradio_calls.py` serves clients
of Gradio, and `page/` is the page. Importing the package imports nothing.
"""
