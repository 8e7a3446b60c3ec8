//go:build !apiserver1.29

package main

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
)

type encryptionConfiguration = apiserver.EncryptionConfiguration

var (
	configTypes           = []func(*runtime.Scheme) error{apiserver.AddToScheme, apiserverv1.AddToScheme}
	decoderOptions        = []serializer.CodecFactoryOptionsMutator{serializer.EnableStrict}
	validateConfiguration = validation.ValidateEncryptionConfiguration
)
