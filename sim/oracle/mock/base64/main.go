// Base64 runs the plugin that upstream's own tests use: it encrypts nothing. It is to be had in a test only,
// so this program is one; after its end it says whether upstream's checks of the callers (PASS or FAIL: their
// :authority is localhost) were met.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	testingv2 "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/testing/v2"
)

var (
	socket  = flag.String("socket", "", "path of the socket to listen on; it must not exist")
	version = flag.String("version", "", "version that Status answers; v2beta1 if it is not given")
)

func main() {
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{
		Name: "base64",
		F:    serve,
	}}, nil, nil)
}

func serve(t *testing.T) {
	if *socket == "" {
		fmt.Fprintln(os.Stderr, "base64: -socket is needed")
		os.Exit(2)
	}
	plugin := testingv2.NewBase64Plugin(t, *socket)
	if *version != "" {
		plugin.SetVersion(*version)
	}
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGINT, syscall.SIGTERM)
	<-stopped
}
