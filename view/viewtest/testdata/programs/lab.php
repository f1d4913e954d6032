<?php
// SPDX-License-Identifier: Apache-2.0
// php lab.php fetch URL | post URL FILE | udp HOST PORT TEXT
// LAB_FILE=FILE php -S [::]:PORT lab.php
if (PHP_SAPI === "cli-server") {
	if ($_SERVER["REQUEST_METHOD"] === "POST") {
		echo hash("sha256", file_get_contents("php://input")), "\n";
	} elseif ($_SERVER["REQUEST_URI"] === "/big") {
		header("Content-Length: " . filesize(getenv("LAB_FILE")));
		readfile(getenv("LAB_FILE"));
	} else {
		echo str_replace("::ffff:", "", $_SERVER["REMOTE_ADDR"]), "\n";
	}
	return;
}
set_error_handler(function ($no, $text) { fwrite(STDERR, $text . "\n"); exit(1); });
switch ($argv[1]) {
case "fetch":
	echo hash("sha256", file_get_contents($argv[2])), "\n";
	break;
case "post":
	echo file_get_contents($argv[2], false, stream_context_create(["http" => [
		"method" => "POST", "content" => file_get_contents($argv[3]), "header" => "Content-Type: application/octet-stream"]]));
	break;
case "udp":
	$s = stream_socket_client("udp://$argv[2]:$argv[3]", $errno, $error, 5);
	stream_set_timeout($s, 5);
	fwrite($s, $argv[4]);
	echo fread($s, 65536), "\n";
	break;
}
