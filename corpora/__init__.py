"""Sources of training data: filelists and corpora. Data folders such as `corpora/demo` are not in version control."""
