//go:build apiserver1.29

package main

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/config"
	configv1 "k8s.io/apiserver/pkg/apis/config/v1"
	"k8s.io/apiserver/pkg/apis/config/validation"
)

type encryptionConfiguration = config.EncryptionConfiguration

var (
	configTypes           = []func(*runtime.Scheme) error{config.AddToScheme, configv1.AddToScheme}
	decoderOptions        []serializer.CodecFactoryOptionsMutator
	validateConfiguration = validation.ValidateEncryptionConfiguration
)
