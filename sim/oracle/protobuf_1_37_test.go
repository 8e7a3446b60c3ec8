//go:build !apiserver1.29 && !apiserver1.31

package main

// emptyValuesAreWritten: an annotation's empty value takes two bytes.
const emptyValuesAreWritten = true
