// Hosted without a server: answers stay in the browser, and the rater saves them as a file at the end.
window.COLLECT = false;
