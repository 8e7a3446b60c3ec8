//go:build apiserver1.29 || apiserver1.31

package main

// emptyValuesAreWritten: before 1.34, with gogo's protobuf, an annotation's empty value is left out.
const emptyValuesAreWritten = false
