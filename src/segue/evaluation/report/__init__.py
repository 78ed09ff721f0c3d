"""Report: the HTML page about one run or several."""
