"""The networks that published metrics look through. Each is built for one published file and loads it strictly."""
