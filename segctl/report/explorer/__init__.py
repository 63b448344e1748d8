"""Pictures of a split with the predictions of all runs, and the page's script that shows them.

maps.py        where pictures and label maps come from: the prepared dataset, saved predictions, the network, worst images
album.py       which pictures the page keeps, and how they are packed
explorer.js    shows an album: side by side, zoom, overlay, differences, order, filters
"""
