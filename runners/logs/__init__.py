"""Questions of logs: what people asked, read from exports and from the log of the server, and made into test
questions.
"""
