"""The datasets that may be downloaded, and the download itself."""
