// Before the first paint: the colours that this browser chose last time.
const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
