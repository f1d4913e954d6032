# SPDX-License-Identifier: Apache-2.0
# lab.rb fetch URL | post URL FILE | udp HOST PORT TEXT | serve PORT FILE
require "digest"
require "net/http"
require "socket"

verb, *args = ARGV
case verb
when "fetch"
  puts Digest::SHA256.hexdigest(Net::HTTP.get(URI(args[0])))
when "post"
  print Net::HTTP.post(URI(args[0]), File.binread(args[1])).body
when "udp"
  s = Addrinfo.udp(args[0], args[1].to_i).connect
  s.send(args[2], 0)
  abort "no answer" unless s.wait_readable(5)
  puts s.recv(65536)
when "serve"
  require "webrick"
  port, file = args
  Thread.new { Socket.udp_server_loop(port.to_i) { |text, from| from.reply(text.upcase) } }
  quiet = WEBrick::Log.new(nil, WEBrick::Log::FATAL)
  server = WEBrick::HTTPServer.new(BindAddress: nil, Port: port.to_i, Logger: quiet, AccessLog: [], MaxClients: 400)
  server.mount_proc("/") do |q, r|
    if q.request_method == "POST"
      r.body = Digest::SHA256.hexdigest(q.body) + "\n"
    elsif q.path == "/big"
      r.body = File.open(file, "rb")
    else
      r.body = q.remote_ip.delete_prefix("::ffff:") + "\n"
    end
  end
  server.start
end
