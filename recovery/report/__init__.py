"""From a journal to a report: the model, its JSON and its page."""
