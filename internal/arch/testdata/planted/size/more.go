package size

// More makes the package longer than its files.
const More = 1
