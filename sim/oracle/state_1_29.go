//go:build apiserver1.29 || apiserver1.31

package main

import (
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
)

// state is what is written with, and what is read is compared with.
func (o object) state() kmsv2.State {
	return kmsv2.State{EncryptedObject: *o.record()}
}
